"""The demo of `tidings up`: this machine as an entity, two alerts that watch it, and a way to provoke one."""
