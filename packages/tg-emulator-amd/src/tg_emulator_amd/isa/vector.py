"""Semantics of vector arithmetic: names | results and sources | expression. See scalar.py for the columns.

`m` is a lane mask as booleans (a source that the instruction does not name is VCC). `i` is the instruction's
immediate facts, R the rounding mode of the result's type. Packed rows are applied to each half.
Source: RDNA3, RDNA4 and CDNA3 ISA manuals, "VOP1" to "VOP3P" instructions.
"""

from __future__ import annotations

__all__ = ["COMPARE", "VECTOR"]

COMPARE = {
    "f": "a != a", "lt": "a < b", "eq": "a == b", "le": "a <= b", "gt": "a > b", "ge": "a >= b", "ne": "a != b",
    "lg": "(a < b) | (a > b)", "o": "(a == a) & (b == b)", "u": "(a != a) | (b != b)", "nge": "~(a >= b)",
    "nlg": "~((a < b) | (a > b))", "ngt": "~(a > b)", "nle": "~(a <= b)", "neq": "~(a == b)", "nlt": "~(a < b)",
    "t": "(a == a) | True", "tru": "(a == a) | True",
}  # fmt: skip

VECTOR = """
nop pipeflush clrexcp                    |                 | None
mov_b32 mov_b16 mov_b64                  | T T             | a
accvgpr_mov_b32 accvgpr_read_b32 accvgpr_write_b32 | u32 u32 | a
cndmask_b32 cndmask_b16                  | T T T m         | np.where(c, b, a)
add_f32 add_f16 add_f64                  | T T T           | add(a, b, R)
sub_f32 sub_f16                          | T T T           | add(a, -b, R)
subrev_f32 subrev_f16                    | T T T           | add(b, -a, R)
mul_f32 mul_f16 mul_f64                  | T T T           | mul(a, b, R)
mul_legacy_f32 mul_dx9_zero_f32          | f32 f32 f32     | np.where((a == 0) | (b == 0), f32(0), a * b)
fma_f32 fma_f16 fma_f64 fmaak_f32 fmamk_f32 fmaak_f16 fmamk_f16 | T T T T | fma(a, b, c, R)
mad_f16 madak_f16 madmk_f16 mad_legacy_f16 fma_legacy_f16 | T T T T | fma(a, b, c, R)
fmac_f32 fmac_f16 fmac_f64 mac_f16       | T T T           | fma(a, b, d, R)
fma_dx9_zero_f32                         | f32 f32 f32 f32 | np.where((a == 0) | (b == 0), c, fma(a, b, c, R))
fmac_dx9_zero_f32                        | f32 f32 f32     | np.where((a == 0) | (b == 0), d, fma(a, b, d, R))
min_f32 min_f16 min_f64 min_num_f32 min_num_f16 min_num_f64 | T T T | canonical(fmin(a, b))
max_f32 max_f16 max_f64 max_num_f32 max_num_f16 max_num_f64 | T T T | canonical(fmax(a, b))
minimum_f32 minimum_f16 minimum_f64      | T T T           | minimum(a, b)
maximum_f32 maximum_f16 maximum_f64      | T T T           | maximum(a, b)
min3_f32 min3_f16 min3_num_f32 min3_num_f16 | T T T T      | canonical(fmin(fmin(a, b), c))
max3_f32 max3_f16 max3_num_f32 max3_num_f16 | T T T T      | canonical(fmax(fmax(a, b), c))
minimum3_f32 minimum3_f16                | T T T T         | minimum(minimum(a, b), c)
maximum3_f32 maximum3_f16                | T T T T         | maximum(maximum(a, b), c)
med3_f32 med3_f16 med3_num_f32 med3_num_f16 | T T T T      | float_med3(a, b, c)
minmax_f32 minmax_f16 minmax_num_f32 minmax_num_f16 | T T T T | canonical(fmax(fmin(a, b), c))
maxmin_f32 maxmin_f16 maxmin_num_f32 maxmin_num_f16 | T T T T | canonical(fmin(fmax(a, b), c))
minimummaximum_f32 minimummaximum_f16    | T T T T         | maximum(minimum(a, b), c)
maximumminimum_f32 maximumminimum_f16    | T T T T         | minimum(maximum(a, b), c)
ceil_f32 ceil_f16 ceil_f64               | T T             | np.ceil(a)
floor_f32 floor_f16 floor_f64            | T T             | np.floor(a)
trunc_f32 trunc_f16 trunc_f64            | T T             | np.trunc(a)
rndne_f32 rndne_f16 rndne_f64            | T T             | np.rint(a)
fract_f32 fract_f16 fract_f64            | T T             | np.minimum(a - np.floor(a), np.nextafter(a.dtype.type(1), a.dtype.type(0)))
rcp_f32 rcp_f16 rcp_f64 rcp_iflag_f32    | T T             | (1 / a.astype(F64)).astype(a.dtype)
rsq_f32 rsq_f16 rsq_f64                  | T T             | (1 / np.sqrt(a.astype(F64))).astype(a.dtype)
sqrt_f32 sqrt_f16 sqrt_f64               | T T             | np.sqrt(a)
exp_f32 exp_legacy_f32                   | f32 f32         | flush(np.exp2(flush(a).astype(F64)).astype(f32))
log_f32 log_legacy_f32                   | f32 f32         | np.log2(flush(a).astype(F64)).astype(f32)
exp_f16                                  | f16 f16         | np.exp2(a.astype(F64)).astype(np.float16)
log_f16                                  | f16 f16         | np.log2(a.astype(F64)).astype(np.float16)
sin_f32 sin_f16                          | T T             | revolve(np.sin, a)
cos_f32 cos_f16                          | T T             | revolve(np.cos, a)
s_rcp_f32 s_rcp_f16                      | T T             | (1 / a.astype(F64)).astype(a.dtype)
s_rsq_f32 s_rsq_f16                      | T T             | (1 / np.sqrt(a.astype(F64))).astype(a.dtype)
s_sqrt_f32 s_sqrt_f16                    | T T             | np.sqrt(a)
s_exp_f32 s_exp_f16                      | T T             | np.exp2(a.astype(F64)).astype(a.dtype)
s_log_f32 s_log_f16                      | T T             | np.log2(a.astype(F64)).astype(a.dtype)
ldexp_f32                                | f32 f32 i32     | scale(a, b)
ldexp_f64                                | f64 f64 i32     | scale(a, b)
ldexp_f16                                | f16 f16 i16     | scale(a, b)
frexp_mant_f32 frexp_mant_f16 frexp_mant_f64 | T T         | np.where(np.isfinite(a), np.frexp(a)[0], a)
frexp_exp_i32_f32                        | i32 f32         | np.where(np.isfinite(a), np.frexp(a)[1], 0)
frexp_exp_i32_f64                        | i32 f64         | np.where(np.isfinite(a), np.frexp(a)[1], 0)
frexp_exp_i16_f16                        | i16 f16         | np.where(np.isfinite(a), np.frexp(a)[1], 0)
div_scale_f32                            | f32,m f32 f32 f32 | div_scale(a, b, c)
div_scale_f64                            | f64,m f64 f64 f64 | div_scale(a, b, c)
div_fmas_f32 div_fmas_f64                | T T T T m       | div_fmas(a, b, c, e, R)
div_fixup_f32 div_fixup_f16 div_fixup_f64 div_fixup_legacy_f16 | T T T T | div_fixup(a, b, c)
trig_preop_f64                           | f64 f64 u32     | trig_preop(a, b)
cvt_f32_f16                              | f32 f16         | a.astype(f32)
cvt_f16_f32                              | f16 f32         | narrow(a.astype(F64), 0, np.float16, R)
cvt_f32_bf16                             | f32 bf16        | a
cvt_f32_f64                              | f32 f64         | narrow(a, 0, f32, R)
cvt_f64_f32                              | f64 f32         | a.astype(F64)
cvt_f32_i32                              | f32 i32         | narrow(a.astype(F64), 0, f32, R)
cvt_f32_u32                              | f32 u32         | narrow(a.astype(F64), 0, f32, R)
cvt_f64_i32                              | f64 i32         | a.astype(F64)
cvt_f64_u32                              | f64 u32         | a.astype(F64)
cvt_f16_i16                              | f16 i16         | narrow(a.astype(F64), 0, np.float16, R)
cvt_f16_u16                              | f16 u16         | narrow(a.astype(F64), 0, np.float16, R)
cvt_i32_f32                              | i32 f32         | to_int(a, np.int32)
cvt_u32_f32                              | u32 f32         | to_int(a, U32)
cvt_i32_f64                              | i32 f64         | to_int(a, np.int32)
cvt_u32_f64                              | u32 f64         | to_int(a, U32)
cvt_i16_f16                              | i16 f16         | to_int(a, np.int16)
cvt_u16_f16                              | u16 f16         | to_int(a, np.uint16)
cvt_i32_i16                              | i32 i16         | a.astype(np.int32)
cvt_u32_u16                              | u32 u16         | a.astype(U32)
cvt_rpi_i32_f32 cvt_nearest_i32_f32      | i32 f32         | to_int(np.floor(a + f32(0.5)), np.int32)
cvt_flr_i32_f32 cvt_floor_i32_f32        | i32 f32         | to_int(np.floor(a), np.int32)
cvt_f32_ubyte0                           | f32 u32         | byte(a, 0).astype(f32)
cvt_f32_ubyte1                           | f32 u32         | byte(a, 1).astype(f32)
cvt_f32_ubyte2                           | f32 u32         | byte(a, 2).astype(f32)
cvt_f32_ubyte3                           | f32 u32         | byte(a, 3).astype(f32)
cvt_off_f32_i4                           | f32 u32         | sext(a, 4).astype(f32) / f32(16)
cvt_norm_i16_f16                         | i16 f16         | to_int(np.rint(a.astype(f32) * f32(32767)), np.int16)
cvt_norm_u16_f16                         | u16 f16         | to_int(np.rint(a.astype(f32) * f32(65535)), np.uint16)
cvt_pkrtz_f16_f32 cvt_pk_rtz_f16_f32     | u32 f32 f32     | join(*(narrow(x.astype(F64), 0, np.float16, 3).view(np.uint16) for x in (a, b)))
cvt_pk_f16_f32                           | u32 f32 f32     | join(*(narrow(x.astype(F64), 0, np.float16, g.round[2]).view(np.uint16) for x in (a, b)))
cvt_pk_bf16_f32                          | u32 f32 f32     | join(bf16_bits(a), bf16_bits(b))
cvt_pknorm_i16_f32 cvt_pk_norm_i16_f32   | u32 f32 f32     | join(*(to_int(np.rint(x * f32(32767)), np.int16) for x in (a, b)))
cvt_pknorm_u16_f32 cvt_pk_norm_u16_f32   | u32 f32 f32     | join(*(to_int(np.rint(x * f32(65535)), np.uint16) for x in (a, b)))
cvt_pknorm_i16_f16 cvt_pk_norm_i16_f16   | u32 f16 f16     | join(*(to_int(np.rint(x.astype(f32) * f32(32767)), np.int16) for x in (a, b)))
cvt_pknorm_u16_f16 cvt_pk_norm_u16_f16   | u32 f16 f16     | join(*(to_int(np.rint(x.astype(f32) * f32(65535)), np.uint16) for x in (a, b)))
cvt_pk_i16_f32                           | u32 f32 f32     | join(to_int(a, np.int16), to_int(b, np.int16))
cvt_pk_u16_f32                           | u32 f32 f32     | join(to_int(a, np.uint16), to_int(b, np.uint16))
cvt_pk_i16_i32                           | u32 i32 i32     | join(clamped(a, np.int16), clamped(b, np.int16))
cvt_pk_u16_u32                           | u32 u32 u32     | join(clamped(a, np.uint16), clamped(b, np.uint16))
cvt_pk_u8_f32                            | u32 f32 u32 u32 | insert(c, to_int(np.rint(a), np.uint8), b & 3)
cvt_pkaccum_u8_f32                       | u32 f32 u32     | insert(d, to_int(np.rint(a), np.uint8), b & 3)
sat_pk_u8_i16                            | u16 u32         | sat_pk(a)
ashr_pk_i8_i32                           | u16 i32 i32 u32 | clamped(shr(a, c), np.int8).view(np.uint8).astype(np.uint16) | clamped(shr(b, c), np.int8).view(np.uint8).astype(np.uint16) << np.uint16(8)
ashr_pk_u8_i32                           | u16 i32 i32 u32 | clamped(shr(a, c), np.uint8).astype(np.uint16) | clamped(shr(b, c), np.uint8).astype(np.uint16) << np.uint16(8)
cvt_f32_fp8                              | f32 u32         | decode(byte(a, i.byte), i.fp8)
cvt_f32_bf8                              | f32 u32         | decode(byte(a, i.byte), i.bf8)
cvt_pk_f32_fp8                           | pf32 u16        | (decode(a & 0xFF, i.fp8), decode(a >> 8, i.fp8))
cvt_pk_f32_bf8                           | pf32 u16        | (decode(a & 0xFF, i.bf8), decode(a >> 8, i.bf8))
cvt_pk_fp8_f32                           | u16 f32 f32     | encode(a, i.fp8, g.overflow16).astype(np.uint16) | encode(b, i.fp8, g.overflow16).astype(np.uint16) << np.uint16(8)
cvt_pk_bf8_f32                           | u16 f32 f32     | encode(a, i.bf8, g.overflow16).astype(np.uint16) | encode(b, i.bf8, g.overflow16).astype(np.uint16) << np.uint16(8)
cvt_sr_fp8_f32                           | u32 f32 u32     | insert(d, stochastic(a, b, i.fp8, g.overflow16), i.byte)
cvt_sr_bf8_f32                           | u32 f32 u32     | insert(d, stochastic(a, b, i.bf8, g.overflow16), i.byte)
cvt_sr_bf16_f32                          | u16 f32 u32     | ((a.view(U32) + (b >> 16)) >> 16).astype(np.uint16)
cvt_sr_f16_f32                           | f16 f32 u32     | narrow((a.view(U32) + (b >> 19)).view(f32).astype(F64), 0, np.float16, 3)
prng_b32                                 | u32 u32         | a << 1 ^ np.where(a >> 31 != 0, U32(197), U32(0))
add_u32 add_nc_u32 add_i32 add_nc_i32 add_u16 add_nc_u16 add_i16 add_nc_i16 | T T T | a + b
sub_u32 sub_nc_u32 sub_i32 sub_nc_i32 sub_u16 sub_nc_u16 sub_i16 sub_nc_i16 | T T T | a - b
subrev_u32 subrev_nc_u32 subrev_u16      | T T T           | b - a
add_co_u32                               | u32,m u32 u32   | add_carry(a, b)
sub_co_u32                               | u32,m u32 u32   | carry_sub(a, b)
subrev_co_u32                            | u32,m u32 u32   | carry_sub(b, a)
addc_co_u32 add_co_ci_u32                | u32,m u32 u32 m | add_carry(a, b, c)
subb_co_u32 sub_co_ci_u32                | u32,m u32 u32 m | carry_sub(a, b, c)
subbrev_co_u32 subrev_co_ci_u32          | u32,m u32 u32 m | carry_sub(b, a, c)
add3_u32                                 | u32 u32 u32 u32 | a + b + c
add_lshl_u32                             | u32 u32 u32 u32 | shl(a + b, c)
lshl_add_u32                             | u32 u32 u32 u32 | shl(a, b) + c
lshl_add_u64                             | u64 u64 u32 u64 | shl(a, b) + c
lshl_or_b32                              | u32 u32 u32 u32 | shl(a, b) | c
and_or_b32                               | u32 u32 u32 u32 | a & b | c
or3_b32                                  | u32 u32 u32 u32 | a | b | c
xor3_b32                                 | u32 u32 u32 u32 | a ^ b ^ c
xad_u32                                  | u32 u32 u32 u32 | (a ^ b) + c
and_b32 and_b16                          | T T T           | a & b
or_b32 or_b16                            | T T T           | a | b
xor_b32 xor_b16                          | T T T           | a ^ b
xnor_b32                                 | T T T           | ~(a ^ b)
not_b32 not_b16                          | T T             | ~a
bitop3_b32 bitop3_b16                    | T T T T         | majority(i.bitop3, a, b, c)
lshlrev_b32                              | u32 u32 u32     | shl(b, a)
lshrrev_b32                              | u32 u32 u32     | shr(b, a)
ashrrev_i32                              | i32 u32 i32     | shr(b, a)
lshlrev_b16                              | u16 u16 u16     | shl(b, a)
lshrrev_b16                              | u16 u16 u16     | shr(b, a)
ashrrev_i16                              | i16 u16 i16     | shr(b, a)
lshlrev_b64                              | u64 u32 u64     | shl(b, a)
lshrrev_b64                              | u64 u32 u64     | shr(b, a)
ashrrev_i64                              | i64 u32 i64     | shr(b, a)
bfe_u32 bfe_i32                          | T T u32 u32     | bfe(a, b & 31, c & 31)
bfi_b32                                  | u32 u32 u32 u32 | a & b | ~a & c
bfm_b32                                  | u32 u32 u32     | shl(low_bits(a & 31, U32), b)
bfrev_b32                                | u32 u32         | brev(a)
bcnt_u32_b32                             | u32 u32 u32     | popcount(a) + b
mbcnt_lo_u32_b32                         | u32 u32 u32     | ones_below(g, a, 0) + b
mbcnt_hi_u32_b32                         | u32 u32 u32     | ones_below(g, a, 32) + b
ffbh_u32 clz_i32_u32                     | u32 u32         | clz(a)
ffbl_b32 ctz_i32_b32                     | u32 u32         | ctz(a)
ffbh_i32 cls_i32                         | u32 i32         | cls(a)
alignbit_b32                             | u32 u32 u32 u32 | align(a, b, c & 31)
alignbyte_b32                            | u32 u32 u32 u32 | align(a, b, (c & 3) * U32(8))
perm_b32                                 | u32 u32 u32 u32 | perm(a, b, c)
mul_lo_u32 mul_lo_i32 mul_lo_u16         | T T T           | a * b
mul_hi_u32 mul_hi_i32                    | T T T           | mul_hi(a, b)
mul_u32_u24                              | u32 u32 u32     | (a & 0xFFFFFF) * (b & 0xFFFFFF)
mul_hi_u32_u24                           | u32 u32 u32     | mul_hi(a & 0xFFFFFF, b & 0xFFFFFF)
mul_i32_i24                              | i32 i32 i32     | signed24(a) * signed24(b)
mul_hi_i32_i24                           | i32 i32 i32     | mul_hi(signed24(a), signed24(b))
mad_u32_u24                              | u32 u32 u32 u32 | (a & 0xFFFFFF) * (b & 0xFFFFFF) + c
mad_i32_i24                              | i32 i32 i32 i32 | signed24(a) * signed24(b) + c
mad_u16 mad_legacy_u16 mad_i16 mad_legacy_i16 | T T T T    | a * b + c
mad_u32_u16                              | u32 u16 u16 u32 | a.astype(U32) * b + c
mad_i32_i16                              | i32 i16 i16 i32 | a.astype(np.int32) * b + c
mad_u64_u32 mad_co_u64_u32               | u64,m u32 u32 u64 | wide_mad(a, b, c)
mad_i64_i32 mad_co_i64_i32               | i64,m i32 i32 i64 | wide_mad(a, b, c)
min_i32 min_u32 min_i16 min_u16          | T T T           | np.minimum(a, b)
max_i32 max_u32 max_i16 max_u16          | T T T           | np.maximum(a, b)
min3_i32 min3_u32 min3_i16 min3_u16      | T T T T         | np.minimum(np.minimum(a, b), c)
max3_i32 max3_u32 max3_i16 max3_u16      | T T T T         | np.maximum(np.maximum(a, b), c)
med3_i32 med3_u32 med3_i16 med3_u16      | T T T T         | med3(a, b, c)
minmax_i32 minmax_u32                    | T T T T         | np.maximum(np.minimum(a, b), c)
maxmin_i32 maxmin_u32                    | T T T T         | np.minimum(np.maximum(a, b), c)
sad_u8                                   | u32 u32 u32 u32 | sad(a, b, 8) + c
sad_hi_u8                                | u32 u32 u32 u32 | (sad(a, b, 8) << 16) + c
sad_u16                                  | u32 u32 u32 u32 | sad(a, b, 16) + c
sad_u32                                  | u32 u32 u32 u32 | sad(a, b, 32) + c
msad_u8                                  | u32 u32 u32 u32 | sad(a, b, 8, True) + c
lerp_u8                                  | u32 u32 u32 u32 | lerp(a, b, c)
pack_b32_f16                             | u32 u16 u16     | join(a, b)
fma_mix_f32                              | f32 mix mix mix | fma(a, b, c, R)
fma_mixlo_f16 fma_mixhi_f16              | f16 mix mix mix | narrow(*two_sum(a.astype(F64) * b, c.astype(F64)), np.float16, R)
dot2_f32_f16                             | f32 pf16 pf16 f32 | dot2(a, b, c)
dot2c_f32_f16 dot2acc_f32_f16            | f32 pf16 pf16   | dot2(a, b, d)
dot2_f32_bf16                            | f32 pbf16 pbf16 f32 | dot2(a, b, c)
dot2c_f32_bf16 dot2acc_f32_bf16          | f32 pbf16 pbf16 | dot2(a, b, d)
dot2_f16_f16                             | f16 pf16 pf16 f16 | dot2(a, b, c).astype(np.float16)
dot2_bf16_bf16                           | bf16 pbf16 pbf16 bf16 | dot2(a, b, c)
dot2_i32_i16                             | i32 u32 u32 i32 | dot(a, b, 16, 1, 1) + c
dot2_u32_u16                             | u32 u32 u32 u32 | dot(a, b, 16, 0, 0) + c
dot2c_i32_i16                            | i32 u32 u32     | dot(a, b, 16, 1, 1) + d
dot4_i32_i8                              | i32 u32 u32 i32 | dot(a, b, 8, 1, 1) + c
dot4_u32_u8                              | u32 u32 u32 u32 | dot(a, b, 8, 0, 0) + c
dot4c_i32_i8                             | i32 u32 u32     | dot(a, b, 8, 1, 1) + d
dot4_i32_iu8                             | i32 u32 u32 i32 | dot(a, b, 8, *i.signs) + c
dot8_i32_i4                              | i32 u32 u32 i32 | dot(a, b, 4, 1, 1) + c
dot8_u32_u4                              | u32 u32 u32 u32 | dot(a, b, 4, 0, 0) + c
dot8c_i32_i4                             | i32 u32 u32     | dot(a, b, 4, 1, 1) + d
dot8_i32_iu4                             | i32 u32 u32 i32 | dot(a, b, 4, *i.signs) + c
dot4_f32_fp8_fp8                         | f32 u32 u32 f32 | dot4_float(a, b, c, i.fp8, i.fp8)
dot4_f32_fp8_bf8                         | f32 u32 u32 f32 | dot4_float(a, b, c, i.fp8, i.bf8)
dot4_f32_bf8_fp8                         | f32 u32 u32 f32 | dot4_float(a, b, c, i.bf8, i.fp8)
dot4_f32_bf8_bf8                         | f32 u32 u32 f32 | dot4_float(a, b, c, i.bf8, i.bf8)
pk_add_f16 pk_add_f32                    | pT pT pT        | add(a, b, R)
pk_mul_f16 pk_mul_f32                    | pT pT pT        | mul(a, b, R)
pk_fma_f16 pk_fma_f32                    | pT pT pT pT     | fma(a, b, c, R)
pk_fmac_f16                              | pT pT pT        | fma(a, b, d, R)
pk_min_f16 pk_min_num_f16                | pT pT pT        | canonical(fmin(a, b))
pk_max_f16 pk_max_num_f16                | pT pT pT        | canonical(fmax(a, b))
pk_minimum_f16                           | pT pT pT        | minimum(a, b)
pk_maximum_f16                           | pT pT pT        | maximum(a, b)
pk_minimum3_f16                          | pT pT pT pT     | minimum(minimum(a, b), c)
pk_maximum3_f16                          | pT pT pT pT     | maximum(maximum(a, b), c)
pk_mov_b32                               | pair pu32 pu32  | (a[0], b[0])
pk_add_u16 pk_add_i16                    | pT pT pT        | a + b
pk_sub_u16 pk_sub_i16                    | pT pT pT        | a - b
pk_mul_lo_u16                            | pT pT pT        | a * b
pk_mad_u16 pk_mad_i16                    | pT pT pT pT     | a * b + c
pk_min_u16 pk_min_i16                    | pT pT pT        | np.minimum(a, b)
pk_max_u16 pk_max_i16                    | pT pT pT        | np.maximum(a, b)
pk_lshlrev_b16                           | pT pT pT        | shl(b, a)
pk_lshrrev_b16                           | pT pT pT        | shr(b, a)
pk_ashrrev_i16                           | pT pT pT        | shr(b, a)
"""  # noqa: E501
