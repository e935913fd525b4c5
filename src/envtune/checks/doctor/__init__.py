"""What ails this machine, or what is set on it: one table of codes and the checks for them."""
