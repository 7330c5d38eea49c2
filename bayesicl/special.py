"""Functions that a fit takes millions of times, in the cheapest form that is exact."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

LOG_2 = (0.693147180369123816490, 1.90821492927058770002e-10)  # 33 bits, and the rest


@jax.custom_jvp
def log_rising(x, k):
    """log Gamma(x + k) - log Gamma(x) for x > 0 and constants k >= 0.

    Stirling's series of both from 8 upwards; below, Gamma(x) is Gamma(x + 8) over the product of
    x ... x + 7. The difference does not cancel where x is large, and value and slope share their
    logarithms.
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
    step = big[1] - big[0]
    ratio = _log(1.0 + step * u[0], step * u[0])
    value = (big[0] - 0.5) * ratio + step * (_log(big[1]) - 1.0) + series[1] - series[0]
    value = value + _log(product[0] / product[1])
    return value, ratio + digamma[1] - digamma[0]


@jax.custom_jvp
def _log(x, above_one=None):
    """log x of positive x, neither subnormal nor infinite: arithmetic alone, which CPUs vectorise.

    With x = m 2^e, 1/sqrt 2 <= m < sqrt 2: log x = e log 2 + 2 artanh((m - 1)/(m + 1)).
    above_one: x - 1, where it is known to more digits than x can hold.
    """
    if x.dtype != jnp.float64:
        return jnp.log(x) if above_one is None else jnp.log1p(above_one)
    bits = lax.bitcast_convert_type(x, jnp.int64)
    e = (bits - np.int64(0x3FE6A09E667F3BCD)) >> 52  # the bits of 1/sqrt 2
    m = lax.bitcast_convert_type(bits - (e << 52), jnp.float64)
    rest = m - 1.0 if above_one is None else jnp.where(e == 0, above_one, m - 1.0)
    s = rest / (m + 1.0)
    v, e = s * s, e.astype(x.dtype)
    odd = 2.0 * s * v * _polynomial(v, tuple(1.0 / k for k in range(3, 24, 2)))
    return e * LOG_2[0] + (2.0 * s + (odd + e * LOG_2[1]))


@_log.defjvp
def _(primals, tangents):
    return _log(*primals), tangents[0] / primals[0]


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
