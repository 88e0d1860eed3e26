"""The mongod that this project runs itself, for trying out and for tests: the program, and the server's life."""
