"""The mongod that this project runs itself, for trials and for tests: the program, and its server."""
