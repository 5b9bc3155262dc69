"""EC2 of the embedded cloud: it answers as AWS does where the scaler depends on it, and boots real processes.

::

    door      hooks into the emulator, routes of its own, the clock, the state file
    api       actions: a form comes in, XML goes out           wire     the protocol, from botocore's model
    cloud     instances and the steps they take                faults   what goes wrong on demand
    machines  the host: user data as a process                 imds     metadata of one instance
    control   the same faults, seen from a test or a command   worker   the launch template of workers
"""
