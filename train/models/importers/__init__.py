"""Published weights of S3D and S3D-G, read into our networks."""
