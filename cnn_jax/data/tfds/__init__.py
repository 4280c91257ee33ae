"""TensorFlow Datasets without TensorFlow: names, features, records, reading and writing."""
