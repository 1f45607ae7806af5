"""What every other part stands on: errors, plug-ins, files, memory, the shipped texts."""
