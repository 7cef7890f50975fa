"""The subscriptions of a socket, and the frames that it receives."""
