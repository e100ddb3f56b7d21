"""What compressed layers cost: parameters, multiply-accumulates and time, and the report of it."""
