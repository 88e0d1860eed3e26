"""History: the changes of each event of one stream, and the version that the stored document equals."""
