"""Populations: several runs of one recipe that differ in seed, fold or scalars.

population = cnn_jax.train_population(seeds=8)
population.figures("accuracy")["seed"]
"""

from cnn_jax.population.trained import Population, members_of, train_population

__all__ = ["Population", "members_of", "train_population"]
