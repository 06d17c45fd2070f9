"""For those who write the course: notebooks from their sources, standalone copies, diagrams, the pictures of CIFAR."""
