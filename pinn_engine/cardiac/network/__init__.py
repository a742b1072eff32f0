"""Field networks: V and W as networks of place and time, forward and inverse, where the activation time is many-valued or W is asked for."""
