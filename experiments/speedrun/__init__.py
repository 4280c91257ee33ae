"""The speed records of CIFAR-10: airbench94, 95 and 96 (Jordan 2024), whole runs on the device."""
