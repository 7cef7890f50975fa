"""
The oracle: what the feed sends to a socket is what ``list`` and ``retrieve`` say on that socket.

Random writes, random pairs of users, consumers of every kind. The modules ``kinds_of_…`` have the consumers,
:mod:`writes` the writes, :mod:`socket` the comparison and :mod:`walk` the random walk.
"""
