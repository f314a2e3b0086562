"""The words of `snf-rados-image`, a module each: `add` its arguments, `run` it."""
