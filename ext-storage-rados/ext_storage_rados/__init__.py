"""A Ganeti ExtStorage provider on Ceph's RBD: images are snapshots, instances their clones."""
