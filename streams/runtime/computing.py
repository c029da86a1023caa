"""Environment variables of processes that compute with Torch. Its libraries read them when they are loaded."""

# A thread that waits for others spins shortly and then sleeps. By default it spins for so long that, with one other
# process at work on the same cores, a step of the engine takes four times as long; without any spinning, an idle
# machine takes 1.4 times as long. libgomp, which Torch comes with, obeys the second, other libraries the first.
_OPENMP_WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "3000"}

# oneDNN keeps what it compiled for each shape of a product of matrices, as does the layer between Torch and it. With
# the default of 1,024 each, prompts of all lengths fill 0.7 GB; with 256 they fill 0.2 GB. To compile again what a pass
# over 1,000 tokens multiplies takes 0.6% of the pass.
_COMPILED_PRODUCTS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256", "LRU_CACHE_CAPACITY": "256"}

COMPUTE_VARIABLES = _OPENMP_WAITING | _COMPILED_PRODUCTS
