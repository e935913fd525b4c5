"""How a training and a server are written for Kubernetes: from one pod, an overlay's base each."""
