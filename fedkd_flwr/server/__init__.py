"""The server of a run: who takes part, what each is sent, how their updates become the next student."""
