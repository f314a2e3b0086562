"""Every job of a Ganeti cluster, exactly as it happened, to whoever follows the cluster."""
