/* What the steps of the ensemble are called with; tcd/native/layout.py has the same structures. */
#ifndef TCD_CALLS_H
#define TCD_CALLS_H

#include "kernel.h"

#define MASKS 16
#define COMPONENTS 4
#define HEADS 4

/* ---- the detector ---- */

/* A logistic combination of z-scores. */
struct head {
    double intercept;
    const double *linear, *quadratic;
};

/* One signal mask of an asset, `count` heads of it in use. */
struct mask {
    struct head heads[HEADS];
    int64_t count;
    struct table steps, components[COMPONENTS], sessions;
    const double *adjusted;
    double level;
};

/* A detector asset. `masks` has a place for each mask, NULL where the asset has no calibration. */
struct detector {
    uint64_t id;
    int64_t features;
    const double *location, *scale; /* (AGES + 1, STATISTICS) */
    const struct mask *masks[MASKS];
};

/* What a build of tcd knows of the statistics: what each needs, columns of components, first tokens of ages. */
struct catalogue {
    int64_t needed[STATISTICS][4];
    int64_t component[COMPONENTS + 1];
    int64_t headline[COMPONENTS][2];
    int64_t ages[AGES];
};

/* One call of the detector. Row i is answered by assets[i * step], NULL for none; fallback likewise. */
struct detector_call {
    struct windows windows;
    const int32_t *lengths;
    int64_t lengths_stride;
    const double *sup;
    int64_t sup_stride;
    const struct catalogue *catalogue;
    const struct detector *const *assets;
    const uint8_t *fallback;
    int64_t step;
    double *p;         /* (n, 2) */
    double *sup_out;   /* (n) */
    float *components; /* (n, COMPONENTS, 3) */
    double *level;     /* (n) */
    uint64_t *asset;   /* (n) */
    int32_t *status;   /* (n) */
};

/* ---- the multivariate monitor ---- */

/* A reference. `weights` (TAIL) of the MEWMA, oldest first, NULL for the newest row alone. */
struct reference {
    uint64_t id;
    int64_t features;
    const double *mean;  /* (features) */
    const double *white; /* (features, features), upper triangular */
    const double *weights;
    double threshold;
    struct table steps, sessions;
    const double *adjusted;
};

/* One call of the multivariate monitor. Row i is answered by assets[i * step], NULL for none; fallback likewise. */
struct multivariate_call {
    int64_t n;
    struct tensor features;
    const int32_t *lengths;
    int64_t lengths_stride;
    const double *sup;
    int64_t sup_stride;
    const struct reference *const *assets;
    const uint8_t *fallback;
    int64_t step;
    double *p;       /* (n, 2) */
    double *sup_out; /* (n) */
    float *mv;       /* (n, 4) */
    uint64_t *asset; /* (n) */
    int32_t *status; /* (n) */
};

/* ---- routing ---- */

/* What a tier does to the decoding parameters, where `has_` is set. */
struct rule {
    double temperature[2], top_p, max_tokens, decoder;
    int64_t has_temperature, has_top_p, has_max_tokens;
};

struct policy {
    uint64_t id;
    double weight, drift;
    int64_t failed;
    struct rule tiers[3];
};

/* One call of routing. Row i is answered by policies[i * step]; known likewise. */
struct routing_call {
    int64_t n;
    const double *detector_p, *detector_sup, *detector_level;
    const uint64_t *detector_asset;
    const int32_t *detector_status;
    const double *multivariate_p, *multivariate_sup;
    const uint64_t *multivariate_asset;
    const int32_t *multivariate_status;
    const int32_t *lengths;
    const double *alpha;
    const float *base;
    const struct policy *const *policies;
    const uint8_t *known;
    int64_t step;
    float *score;                              /* (n) */
    double *p_step, *sup_out, *p_value;        /* (n, 2), (n, 2), (n) */
    int32_t *trigger, *verdict, *tier, *status; /* (n) */
    float *route;                              /* (n, 4) */
    uint64_t *assets;                          /* (n, 3) */
};

EXPORT int tcd_detector(const struct detector_call *call);
EXPORT int tcd_multivariate(const struct multivariate_call *call);
EXPORT int tcd_route(const struct routing_call *call);

#endif
