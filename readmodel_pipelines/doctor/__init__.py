"""The doctor: looks at everything that a rebuild, a repair or a verification needs, and says what to do about the rest.

It writes nothing and starts nothing, reads no event, and runs no query to see how fast it is: the server only explains
it. `examine` asks what ordinary work asks, and the other modules judge: pure functions from facts to a `Check`. No
check is shown a credential.
"""
