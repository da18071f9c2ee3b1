/* How worlds of ranks divide into fold groups. */
#include "fb3/train.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MOST_RANKS = 64, AUTO = -1 };

/* A world by the nodes of its ranks: "0011" is two nodes of two, "0101" the same dealt in turns. */
static int make_world(const char *nodes, fb3_rank_info *ranks)
{
    int size = (int)strlen(nodes), on_node[10] = {0};
    for (int r = 0; r < size; r++) {
        int node = nodes[r] - '0';
        ranks[r] = (fb3_rank_info){.rank = r, .node = node, .node_rank = on_node[node]++};
    }
    return size;
}

static void divided(void **state)
{
    (void)state;
    static const struct {
        const char *nodes;
        int wanted, selected, folds;
        const char *group; /* of each rank */
    } CASES[] = {
        {"0", AUTO, 3, 3, "0"},
        {"0000", AUTO, 4, 4, "0000"}, /* auto goes along nodes only */
        {"00112233", AUTO, 4, 4, "00112233"},
        {"00112233", AUTO, 2, 2, "00001111"},
        {"00112233", AUTO, 6, 6, "00001111"}, /* 2 divides 6 folds and 4 nodes; 3 and 4 do not */
        {"00112233", AUTO, 5, 5, "00000000"},
        {"001122", AUTO, 3, 3, "001122"},
        {"001122", AUTO, 3, 1, "000000"}, /* two folds are complete */
        {"0101", AUTO, 2, 2, "0101"},
        {"000112", AUTO, 3, 3, "000112"}, /* uneven nodes */
        {"0000", 2, 4, 4, "0011"},
        {"0000", 4, 4, 4, "0123"},
        {"0101", 4, 4, 4, "0213"},         /* node 0: groups 0 and 1; node 1: groups 2 and 3 */
        {"00112233", 2, 3, 3, "00001111"}, /* folds need not divide when the number is given */
        {"0000", 4, 4, 2, "0011"},         /* two are complete: as many groups as there are folds */
        {"0000", 4, 4, 3, "0011"},         /* 3 does not divide 4 ranks */
        {"0000", 4, 4, 0, "0000"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        fb3_rank_info ranks[MOST_RANKS];
        int group[MOST_RANKS], groups, most = 0, size = make_world(CASES[i].nodes, ranks);
        const int64_t wanted = CASES[i].wanted == AUTO ? FB3_UNSET_INT : CASES[i].wanted;
        assert_int_equal(fb3_groups_choose(ranks, size, wanted, CASES[i].selected, CASES[i].folds, group, &groups),
                         FB3_OK);
        for (int r = 0; r < size; r++) {
            if (group[r] != CASES[i].group[r] - '0') fail_msg("case %zu: rank %d is in group %d", i, r, group[r]);
            if (group[r] > most) most = group[r];
        }
        assert_int_equal(groups, most + 1);
    }
}

static void refused(void **state)
{
    (void)state;
    static const struct {
        const char *nodes;
        int wanted, selected;
        const char *word;
    } CASES[] = {
        {"0000", 5, 4, "more than the 4 folds"},
        {"0000", 3, 4, "neither the 1 nodes"},
        {"00112233", 3, 3, "neither the 4 nodes"},
        {"00011", 4, 4, "neither the 2 nodes"}, /* three ranks do not make two equal runs */
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        fb3_rank_info ranks[MOST_RANKS];
        int group[MOST_RANKS], groups, size = make_world(CASES[i].nodes, ranks);
        assert_int_equal(
            fb3_groups_choose(ranks, size, CASES[i].wanted, CASES[i].selected, CASES[i].selected, group, &groups),
            FB3_INPUT);
        if (!strstr(fb3_error_text(), CASES[i].word)) fail_msg("%s", fb3_error_text());
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(divided), cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
