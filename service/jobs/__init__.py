"""Jobs: what is asked for, what has been made of it, and in which state it is. The object store is the truth."""
