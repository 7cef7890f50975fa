"""The loader: takes what changed from the hub, has threads read it, and has it delivered."""
