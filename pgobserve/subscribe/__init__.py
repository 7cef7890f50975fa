"""How the subscriptions of a socket start and end."""
