"""CoSimGen (Bose et al.): text or classes -> an image and its mask, in one denoising process."""
