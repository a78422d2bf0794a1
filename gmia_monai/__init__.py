"""gmia_monai: anonymize chest radiographs in the latent space of a co-trained StyleGAN2 auto-encoder."""

__version__ = "0.1.0"
