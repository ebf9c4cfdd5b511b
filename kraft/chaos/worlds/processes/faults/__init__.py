"""What can be broken: processes of nodes, their disks, and the links between them."""
