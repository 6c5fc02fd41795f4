"""Does the student see motion? D3D's claims on videos whose motion is known, with controls."""
