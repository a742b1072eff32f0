"""Field networks: V and W as networks of place and time, forward and inverse, where activation times are many-valued or W is wanted."""
