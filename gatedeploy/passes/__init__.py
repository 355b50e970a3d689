"""The passes that collapse a gated network, one a file, in the order they run in `gatedeploy.compiler`."""
