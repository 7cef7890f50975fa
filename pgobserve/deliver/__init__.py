"""From the results of loads to the frames of sockets."""
