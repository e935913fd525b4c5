"""What is there? GPUs, memory, ports, other nodes, the platform around the container."""
