"""The doctor: checks everything that a rebuild, a repair or a verification needs, and suggests a fix for each problem.

It writes nothing, starts nothing and reads no event. It runs no query to measure its speed: the server only explains
it. `examine` gathers the facts, and the other modules judge them with pure functions that return a `Check`. No check
gets a credential.
"""
