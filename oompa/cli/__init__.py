"""The command ``oompa``.

``main`` knows the commands, each in a file of its group that is imported when it is asked for, and what ends in which exit
code: ``asking`` (call, ping, info, stats, schema, stub), ``serving`` (serve), ``benching`` (bench), ``watching`` (top).
``reaching`` is how they get a connection, ``output`` where values and errors go, ``measuring`` what latencies come to.
``probe`` is a ping that imports next to nothing.
"""
