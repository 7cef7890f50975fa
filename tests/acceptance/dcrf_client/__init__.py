"""DCRF's JavaScript client: its session, and what it talks to."""
