"""Semantics of scalar arithmetic: names | results and sources | expression.

Types are those of operands.py; `c` is SCC, as a result. T is the type in the name. The expression sees the sources as
a, b, the destination's old value as d, the group g, and the functions of integers.py and floats.py.
Source: RDNA4 and CDNA3 ISA manuals, "SOP1" to "SOPC" instructions.
"""

from __future__ import annotations

__all__ = ["SCALAR"]

SCALAR = """
mov_b32 mov_b64 movk_i32                 | T T           | a
cmov_b32 cmov_b64 cmovk_i32              | T T           | np.where(g.scc, a, d)
add_u32 add_co_u32                       | u32,c u32 u32 | add_carry(a, b)
sub_u32 sub_co_u32                       | u32,c u32 u32 | carry_sub(a, b)
addc_u32 add_co_ci_u32                   | u32,c u32 u32 | add_carry(a, b, g.scc)
subb_u32 sub_co_ci_u32                   | u32,c u32 u32 | carry_sub(a, b, g.scc)
add_i32 add_co_i32                       | i32,c i32 i32 | (a + b, over(a.astype(W) + b))
sub_i32 sub_co_i32                       | i32,c i32 i32 | (a - b, over(a.astype(W) - b))
addk_i32 addk_co_i32                     | i32,c i32     | (d + a, over(d.astype(W) + a))
mulk_i32                                 | i32 i32       | d * a
add_nc_u64                               | u64 u64 u64   | a + b
sub_nc_u64                               | u64 u64 u64   | a - b
mul_i32 mul_u64                          | T T T         | a * b
mul_hi_u32 mul_hi_i32                    | T T T         | mul_hi(a, b)
min_i32 min_u32                          | T,c T T       | (np.minimum(a, b), a < b)
max_i32 max_u32                          | T,c T T       | (np.maximum(a, b), a > b)
absdiff_i32                              | i32,c i32 i32 | nonzero(np.abs(a - b))
abs_i32                                  | i32,c i32     | nonzero(np.abs(a))
and_b32 and_b64                          | T,c T T       | nonzero(a & b)
or_b32 or_b64                            | T,c T T       | nonzero(a | b)
xor_b32 xor_b64                          | T,c T T       | nonzero(a ^ b)
andn2_b32 andn2_b64 and_not1_b32 and_not1_b64 | T,c T T  | nonzero(a & ~b)
orn2_b32 orn2_b64 or_not1_b32 or_not1_b64 | T,c T T      | nonzero(a | ~b)
nand_b32 nand_b64                        | T,c T T       | nonzero(~(a & b))
nor_b32 nor_b64                          | T,c T T       | nonzero(~(a | b))
xnor_b32 xnor_b64                        | T,c T T       | nonzero(~(a ^ b))
not_b32 not_b64                          | T,c T         | nonzero(~a)
lshl_b32 lshl_b64                        | T,c T u32     | nonzero(shl(a, b))
lshr_b32 lshr_b64                        | T,c T u32     | nonzero(shr(a, b))
ashr_i32 ashr_i64                        | T,c T u32     | nonzero(shr(a, b))
lshl1_add_u32                            | u32,c u32 u32 | add_carry(a.astype(U64) << U64(1), b)
lshl2_add_u32                            | u32,c u32 u32 | add_carry(a.astype(U64) << U64(2), b)
lshl3_add_u32                            | u32,c u32 u32 | add_carry(a.astype(U64) << U64(3), b)
lshl4_add_u32                            | u32,c u32 u32 | add_carry(a.astype(U64) << U64(4), b)
bfm_b32                                  | u32 u32 u32   | shl(low_bits(a & 31, U32), b)
bfm_b64                                  | u64 u32 u32   | shl(low_bits(a & 63, U64), b)
bfe_u32 bfe_i32                          | T,c T u32     | nonzero(bfe(a, b & 31, b >> 16 & 127))
bfe_u64 bfe_i64                          | T,c T u32     | nonzero(bfe(a, b & 63, b >> 16 & 127))
bcnt0_i32_b32                            | u32,c u32     | nonzero(popcount(~a))
bcnt0_i32_b64                            | u32,c u64     | nonzero(popcount(~a))
bcnt1_i32_b32                            | u32,c u32     | nonzero(popcount(a))
bcnt1_i32_b64                            | u32,c u64     | nonzero(popcount(a))
ff0_i32_b32                              | u32 u32       | ctz(~a)
ff0_i32_b64                              | u32 u64       | ctz(~a)
ff1_i32_b32 ctz_i32_b32                  | u32 u32       | ctz(a)
ff1_i32_b64 ctz_i32_b64                  | u32 u64       | ctz(a)
flbit_i32_b32 clz_i32_u32                | u32 u32       | clz(a)
flbit_i32_b64 clz_i32_u64                | u32 u64       | clz(a)
flbit_i32 cls_i32                        | u32 i32       | cls(a)
flbit_i32_i64 cls_i32_i64                | u32 i64       | cls(a)
brev_b32 brev_b64                        | T T           | brev(a)
sext_i32_i8                              | i32 u32       | sext(a, 8)
sext_i32_i16                             | i32 u32       | sext(a, 16)
bitset0_b32                              | u32 u32       | d & ~shl(np.ones_like(d), a)
bitset1_b32                              | u32 u32       | d | shl(np.ones_like(d), a)
bitset0_b64                              | u64 u32       | d & ~shl(np.ones_like(d), a)
bitset1_b64                              | u64 u32       | d | shl(np.ones_like(d), a)
bitcmp0_b32                              | c u32 u32     | shr(a, b) & 1 == 0
bitcmp1_b32                              | c u32 u32     | shr(a, b) & 1 == 1
bitcmp0_b64                              | c u64 u32     | shr(a, b) & U64(1) == 0
bitcmp1_b64                              | c u64 u32     | shr(a, b) & U64(1) == 1
bitreplicate_b64_b32                     | u64 u32       | replicate(a)
quadmask_b32 quadmask_b64                | T,c T         | nonzero(quad_mask(a))
wqm_b32 wqm_b64                          | T,c T         | nonzero(whole_quad(a))
cselect_b32 cselect_b64                  | T T T         | np.where(g.scc, a, b)
pack_ll_b32_b16                          | u32 u32 u32   | a & 0xFFFF | b << 16
pack_lh_b32_b16                          | u32 u32 u32   | a & 0xFFFF | b & 0xFFFF0000
pack_hl_b32_b16                          | u32 u32 u32   | a >> 16 | b << 16
pack_hh_b32_b16                          | u32 u32 u32   | a >> 16 | b & 0xFFFF0000
add_f32 add_f16                          | T T T         | add(a, b, R)
sub_f32 sub_f16                          | T T T         | add(a, -b, R)
mul_f32 mul_f16                          | T T T         | mul(a, b, R)
fmac_f32 fmac_f16                        | T T T         | fma(a, b, d, R)
fmamk_f32                                | f32 f32 f32 f32 | fma(a, b, c, R)
fmaak_f32                                | f32 f32 f32 f32 | fma(a, b, c, R)
min_f32 min_f16 min_num_f32 min_num_f16  | T T T         | fmin(a, b)
max_f32 max_f16 max_num_f32 max_num_f16  | T T T         | fmax(a, b)
minimum_f32 minimum_f16                  | T T T         | minimum(a, b)
maximum_f32 maximum_f16                  | T T T         | maximum(a, b)
ceil_f32 ceil_f16                        | T T           | np.ceil(a)
floor_f32 floor_f16                      | T T           | np.floor(a)
trunc_f32 trunc_f16                      | T T           | np.trunc(a)
rndne_f32 rndne_f16                      | T T           | np.rint(a)
cvt_f32_i32                              | f32 i32       | narrow(a.astype(F64), 0, np.float32, R)
cvt_f32_u32                              | f32 u32       | narrow(a.astype(F64), 0, np.float32, R)
cvt_i32_f32                              | i32 f32       | to_int(a, np.int32)
cvt_u32_f32                              | u32 f32       | to_int(a, U32)
cvt_f16_f32                              | f16 f32       | narrow(a.astype(F64), 0, np.float16, g.round[2])
cvt_f32_f16                              | f32 f16       | a.astype(np.float32)
cvt_hi_f32_f16                           | f32 u32       | (a >> 16).astype(np.uint16).view(np.float16).astype(np.float32)
cvt_pk_rtz_f16_f32                       | u32 f32 f32   | join(*(narrow(x.astype(F64), 0, np.float16, 3).view(np.uint16) for x in (a, b)))
"""  # noqa: E501
