#include <stdint.h>
#include <stddef.h>
#include <math.h>
#include <stdatomic.h>
void saxpy(float *restrict y, const float *restrict x, float a, size_t n) { for (size_t i = 0; i < n; i++) y[i] += a * x[i]; }
double dot(const double *a, const double *b, size_t n) { double s = 0; for (size_t i = 0; i < n; i++) s += a[i] * b[i]; return s; }
void matmul(float *restrict c, const float *restrict a, const float *restrict b, int n) {
  for (int i = 0; i < n; i++) for (int k = 0; k < n; k++) for (int j = 0; j < n; j++) c[i*n+j] += a[i*n+k] * b[k*n+j]; }
void relu(float *x, int n) { for (int i = 0; i < n; i++) x[i] = x[i] > 0 ? x[i] : 0; }
int32_t argmax(const float *x, int n) { int b = 0; for (int i = 1; i < n; i++) if (x[i] > x[b]) b = i; return b; }
void gather(float *restrict y, const float *restrict x, const int *restrict idx, int n) { for (int i = 0; i < n; i++) y[i] = x[idx[i]]; }
void scatter(float *restrict y, const float *restrict x, const int *restrict idx, int n) { for (int i = 0; i < n; i++) y[idx[i]] = x[i]; }
uint64_t hash(const uint8_t *p, size_t n) { uint64_t h = 1469598103934665603ull; for (size_t i = 0; i < n; i++) { h ^= p[i]; h *= 1099511628211ull; h = h << 13 | h >> 51; } return h; }
void convert(int8_t *restrict o, const float *restrict x, int n) { for (int i = 0; i < n; i++) o[i] = (int8_t)x[i]; }
void widen(float *restrict o, const uint8_t *restrict x, int n) { for (int i = 0; i < n; i++) o[i] = x[i] * 0.5f; }
void f16(_Float16 *restrict o, const float *restrict x, int n) { for (int i = 0; i < n; i++) o[i] = (_Float16)x[i] * (_Float16)2; }
void halves(_Float16 *restrict o, const _Float16 *restrict x, int n) { for (int i = 0; i < n; i++) o[i] = o[i] * x[i] + (_Float16)1; }
int i8dot(const int8_t *a, const uint8_t *b, int n) { int s = 0; for (int i = 0; i < n; i++) s += a[i] * b[i]; return s; }
int64_t divide(int64_t a, int64_t b) { return a / b + a % 10; }
unsigned udiv(unsigned a) { return a / 7 + a % 13; }
int popcounts(const uint64_t *x, int n) { int s = 0; for (int i = 0; i < n; i++) s += __builtin_popcountll(x[i]) + __builtin_ctzll(x[i]) + __builtin_clzll(x[i] | 1); return s; }
void counter(_Atomic long *p) { atomic_fetch_add(p, 1); long e = 3; atomic_compare_exchange_strong(p, &e, 4); atomic_exchange(p, 9); atomic_fetch_or(p, 8); }
int sw(int x) { switch (x) { case 0: return 5; case 1: return 77; case 2: return -3; case 3: return 9; case 4: return 1000; case 5: return 42; default: return 0; } }
void softmax(float *x, int n) { float m = x[0]; for (int i = 1; i < n; i++) m = fmaxf(m, x[i]); float s = 0; for (int i = 0; i < n; i++) { x[i] = x[i] - m; s += x[i]; } for (int i = 0; i < n; i++) x[i] /= s; }
void sort(int *x, int n) { for (int i = 1; i < n; i++) { int v = x[i], j = i; while (j > 0 && x[j-1] > v) { x[j] = x[j-1]; j--; } x[j] = v; } }
void copy(char *restrict d, const char *restrict s, size_t n) { for (size_t i = 0; i < n; i++) d[i] = s[i]; }
void strided(float *restrict y, const float *restrict x, int n) { for (int i = 0; i < n; i++) y[i] = x[3*i] + x[3*i+1] * x[3*i+2]; }
float horner(float x) { return 1 + x * (0.5f + x * (0.25f + sqrtf(fabsf(x)) * floorf(x))); }
uint32_t philox(uint32_t c, uint32_t k) { for (int i = 0; i < 10; i++) { uint64_t p = (uint64_t)c * 0xD2511F53u; c = (uint32_t)(p >> 32) ^ k; k += 0x9E3779B9u; } return c; }
__int128 wide(__int128 a, __int128 b) { return a * b + (a >> 5); }
int cmp(const double *x, int n) { int s = 0; for (int i = 0; i < n; i++) s += x[i] < 1.5 || x[i] != x[i]; return s; }
void transpose(float *restrict y, const float *restrict x) { for (int i = 0; i < 16; i++) for (int j = 0; j < 16; j++) y[j*16+i] = x[i*16+j]; }
void fill(int *x, int n, int v) { for (int i = 0; i < n; i++) x[i] = v + i; }
void many(double *x, double a, double b, double c, double d, int n) { for (int i = 0; i < n; i++) x[i] = (x[i] * a + b) / (c - x[i]) > d ? (double)(long)x[i] : (double)(unsigned long)x[i]; }
