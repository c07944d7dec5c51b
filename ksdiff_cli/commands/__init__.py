"""The commands of the ksdiff program, one file each: parse, one call into a tool, print."""
