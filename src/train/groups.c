/* Fold groups: the world divides into groups of ranks that train folds side by side (INTERFACE, fold_groups).
 *
 * A group is made of whole nodes, so that the gradients of a fold stay between as few of them as can be; a number given
 * explicitly may also divide each node into equal runs of ranks. Everything here follows from the table of ranks and
 * from which folds are complete, so every rank comes to the same groups. */
#include "fb3/log.h"
#include "fb3/train.h"

#include <stdio.h>
#include <stdlib.h>

/* The folds that are selected and not complete. Rank 0 of the world looks. */
static fb3_status find_folds_to_train(fb3_run *run, int *count)
{
    int64_t complete[FB3_MAX_FOLDS] = {0};
    fb3_session *session = run->session;
    for (int k = 0; session->first && k < run->folds; k++) complete[k] = run->selected[k] && fb3_fold_complete(run, k);
    FB3_TRY(fb3_comm_broadcast(session->world, complete, sizeof complete, 0, "which folds are complete"));
    *count = 0;
    for (int k = 0; k < FB3_MAX_FOLDS; k++) {
        run->group_of_fold[k] = -1;
        if (k >= run->folds || !run->selected[k]) continue;
        if (complete[k])
            fb3_log_info("fold %d is complete already", k);
        else
            run->group_of_fold[k] = (*count)++; /* its turn; the groups follow */
    }
    return FB3_OK;
}

/* --- how a world divides: follows from the table of ranks alone ----------------------------------------------------
 */

typedef struct world_map {
    const fb3_rank_info *ranks; // [size]
    int size, nodes;
} world_map;

static world_map map_of(const fb3_rank_info *ranks, int size)
{
    world_map map = {.ranks = ranks, .size = size, .nodes = 1};
    for (int r = 0; r < size; r++)
        if (ranks[r].node >= map.nodes) map.nodes = ranks[r].node + 1;
    return map;
}

static int ranks_of_node(const world_map *map, int node)
{
    int count = 0;
    for (int r = 0; r < map->size; r++) count += map->ranks[r].node == node;
    return count;
}

/* Whether the nodes divide into so many groups, or each node into equal parts. */
static bool divides(const world_map *map, int groups)
{
    if (map->nodes % groups == 0) return true;
    if (groups % map->nodes != 0) return false;
    for (int node = 0; node < map->nodes; node++)
        if (ranks_of_node(map, node) % (groups / map->nodes) != 0) return false;
    return true;
}

static int group_of(const world_map *map, int groups, int rank)
{
    const fb3_rank_info *info = &map->ranks[rank];
    if (map->nodes % groups == 0) return info->node / (map->nodes / groups);
    int parts = groups / map->nodes;
    return info->node * parts + info->node_rank * parts / ranks_of_node(map, info->node);
}

fb3_status fb3_groups_choose(const fb3_rank_info *ranks, int size, int64_t wanted, int selected, int folds, int *group,
                             int *groups)
{
    const world_map map = map_of(ranks, size);
    const bool automatic = wanted == FB3_UNSET_INT;
    FB3_REQUIRE(automatic || wanted <= selected, FB3_INPUT,
                "fold_groups: %lld is more than the %d folds to train; use %d, or auto", (long long)wanted, selected,
                selected);
    FB3_REQUIRE(automatic || divides(&map, (int)wanted), FB3_INPUT,
                "fold_groups: %lld divides neither the %d nodes nor each node's ranks into equal parts; use auto",
                (long long)wanted, map.nodes);
    *groups = 1;
    for (int g = 2; g <= folds && g <= (automatic ? map.nodes : wanted); g++) {
        bool fits = automatic ? folds % g == 0 && map.nodes % g == 0 : divides(&map, g);
        if (fits) *groups = g;
    }
    for (int r = 0; r < size; r++) group[r] = group_of(&map, *groups, r);
    return FB3_OK;
}

/* --- the groups of a run ------------------------------------------------------------------------------------------ */

static int smallest_of(const int *group, int size, int groups)
{
    int smallest = size;
    for (int g = 0; g < groups; g++) {
        int ranks = 0;
        for (int r = 0; r < size; r++) ranks += group[r] == g;
        if (ranks < smallest) smallest = ranks;
    }
    return smallest;
}

/* The end of a row of the start table: group and folds. */
static void print_folds(const void *context, int rank)
{
    const fb3_run *run = context;
    int folds = 0;
    printf("  group %d:", run->group_of_rank[rank]);
    for (int k = 0; k < run->folds; k++)
        if (run->group_of_fold[k] == run->group_of_rank[rank]) printf("%s %d", folds++ ? "," : " fold", k);
    if (folds == 0) printf(" nothing to train");
}

fb3_status fb3_run_form_groups(fb3_run *run)
{
    fb3_session *session = run->session;
    int folds, selected = 0, size = fb3_comm_size(session->world);
    FB3_TRY(find_folds_to_train(run, &folds));
    for (int k = 0; k < run->folds; k++) selected += run->selected[k];
    run->group_of_rank = calloc((size_t)size, sizeof *run->group_of_rank);
    FB3_REQUIRE(run->group_of_rank, FB3_FAILED, "out of memory for the groups of ranks");
    FB3_TRY(fb3_groups_choose(session->ranks, size, run->config->fold_groups, selected, folds, run->group_of_rank,
                              &run->groups));
    run->group = run->group_of_rank[fb3_comm_rank(session->world)];
    run->smallest_group = smallest_of(run->group_of_rank, size, run->groups);
    for (int k = 0; k < run->folds; k++)
        if (run->group_of_fold[k] >= 0) run->group_of_fold[k] %= run->groups;
    fb3_session_print_ranks(session, print_folds, run);
    return fb3_session_join(session, run->group, run->groups);
}
