"""A volume as a block device without krbd: librbd behind FUSE, a loop device on top.

    loop device ─► FUSE file ─► /dev/fuse ─► worker (librbd) ─► Ceph
                                    │
                                  keeper

The keeper mounts a file system that is one file, keeps its descriptor, starts the worker that
answers requests, and puts a loop device on the file. When a worker dies the next one gets the
same descriptor and, from Linux 6.9 on, the requests that were not answered: whoever uses the
device waits and sees no error. The kernel knows all there is to know: a run of Ganeti that
comes later finds the keeper by its lock, and the loop device by its file.
"""
