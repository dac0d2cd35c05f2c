"""Tables and sentences of the pages, made from files of results."""
