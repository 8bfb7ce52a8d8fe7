"""The parts that let one machine run all of Twinset without root, docker or a server of its own."""
