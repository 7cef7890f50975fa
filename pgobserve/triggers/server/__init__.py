"""What the server's catalog has, compared with what is wanted."""
