"""History: the changes of each event of one stream, the last change of each field, and the version of the stored
document.
"""
