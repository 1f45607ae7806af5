"""Other machines, reached by the system's ssh; standard library only."""
