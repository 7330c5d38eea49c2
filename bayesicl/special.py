"""Functions that a fit takes millions of times, in the cheapest form that is exact."""

import jax
import jax.numpy as jnp
import numpy as np


@jax.custom_jvp
def log_rising(x, k):
    """log Gamma(x + k) - log Gamma(x) for x > 0 and constants k >= 0.

    Stirling's series of both from 8 upwards; below, Gamma(x) is Gamma(x + 8) over the product of
    x ... x + 7. The difference does not cancel where x is large, and value and slope share their
    logarithms, of which a fit takes millions.
    """
    return _rising(x, k)[0]


@log_rising.defjvp
def _(primals, tangents):
    value, slope = _rising(*primals)
    return value, slope * tangents[0]


def _rising(x, k):
    """`log_rising` and its slope in x: the difference of digammas."""
    ends = jnp.stack([x, x + k])
    low = ends < 8.0
    t = jnp.where(low, ends * (ends + 7.0), 1.0)  # the factors in pairs: x + i and x + 7 - i
    product = jnp.where(low, t * (t + 6.0) * (t + 10.0) * (t + 12.0), 1.0)
    slope = (2.0 * ends + 7.0) * (((4.0 * t + 84.0) * t + 504.0) * t + 720.0)
    slope = jnp.where(low, slope / product, 0.0)
    big = jnp.where(low, ends + 8.0, ends)
    u = 1.0 / big
    v = u * u
    series = u * _polynomial(v, (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360))
    terms = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12)
    digamma = -0.5 * u - v * _polynomial(v, terms) - slope  # but for log(big)
    step, ratio = big[1] - big[0], jnp.log1p((big[1] - big[0]) * u[0])
    value = (big[0] - 0.5) * ratio + step * (jnp.log(big[1]) - 1.0) + series[1] - series[0]
    value = value + jnp.log(product[0] / product[1])
    return value, ratio + digamma[1] - digamma[0]


def _polynomial(x, terms):
    """terms[0] + terms[1] x + ..."""
    total = jnp.full_like(x, terms[-1])
    for term in terms[-2::-1]:
        total = total * x + term
    return total


def two_uniforms(key, counter, kind) -> tuple[jax.Array, jax.Array]:
    """Threefry-2x32 of 20 rounds (Salmon et al. 2011), written out: JAX's own is a loop on CPU."""
    keys = (key[0], key[1], key[0] ^ key[1] ^ np.uint32(0x1BD11BDA))
    x, y = counter + keys[0], keys[1]
    for i in range(20):
        x = x + y
        turn = (13, 15, 26, 6, 17, 29, 16, 24)[i % 8]
        y = ((y << turn) | (y >> (32 - turn))) ^ x
        if i % 4 == 3:
            x = x + keys[(i // 4 + 1) % 3]
            y = y + keys[(i // 4 + 2) % 3] + np.uint32(i // 4 + 1)
    return tuple((bits.astype(kind) + 0.5) * 2.0**-32 for bits in (x, y))
