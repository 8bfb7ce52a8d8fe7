"""Fleet simulator: what a scaling rule costs and how long jobs wait, with the real rules and the cluster's clocks."""
