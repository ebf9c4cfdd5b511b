import java.nio.ByteBuffer;
import java.util.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor.*;
import org.apache.kafka.clients.consumer.internals.AbstractPartitionAssignor;
import org.apache.kafka.common.TopicPartition;

/**
 * Kafka's own assignors. Standard input has one case per line, words separated by spaces:
 *   ASSIGNOR topic=COUNT ... MEMBER/INSTANCE/GENERATION/TOPIC,TOPIC/TOPIC:PARTITION,... ...
 * INSTANCE and the last two may be empty. Standard output has for each case: MEMBER/TOPIC:PARTITION,... ...
 */
public class Assign {
    public static void main(String[] arguments) {
        Scanner lines = new Scanner(System.in);
        while (lines.hasNextLine()) System.out.println(assigned(lines.nextLine().split(" ")));
    }

    static String assigned(String[] words) {
        AbstractPartitionAssignor assignor = assignor(words[0]);
        Map<String, Integer> counts = new HashMap<>();
        Map<String, Subscription> members = new HashMap<>();
        for (int i = 1; i < words.length; i++) {
            if (words[i].contains("=")) {
                String[] topic = words[i].split("=");
                counts.put(topic[0], Integer.parseInt(topic[1]));
            } else {
                String[] member = words[i].split("/", -1);
                members.put(member[0], subscription(words[0], member));
            }
        }
        Map<String, List<TopicPartition>> assigned = assignor.assign(counts, members);
        List<String> found = new ArrayList<>();
        for (String member : new TreeSet<>(assigned.keySet())) {
            TreeSet<TopicPartition> sorted = new TreeSet<>(
                Comparator.comparing(TopicPartition::topic).thenComparing(TopicPartition::partition));
            sorted.addAll(assigned.get(member));
            StringJoiner partitions = new StringJoiner(",", member + "/", "");
            for (TopicPartition each : sorted) partitions.add(each.topic() + ":" + each.partition());
            found.add(partitions.toString());
        }
        return String.join(" ", found);
    }

    static AbstractPartitionAssignor assignor(String name) {
        switch (name) {
            case "range": return new RangeAssignor();
            case "roundrobin": return new RoundRobinAssignor();
            case "sticky": return new StickyAssignor();
            default: return new CooperativeStickyAssignor();
        }
    }

    static Subscription subscription(String assignor, String[] member) {
        int generation = Integer.parseInt(member[2]);
        List<String> topics = member[3].isEmpty() ? List.of() : List.of(member[3].split(","));
        List<TopicPartition> owned = new ArrayList<>();
        for (String each : member[4].isEmpty() ? new String[0] : member[4].split(","))
            owned.add(new TopicPartition(each.split(":")[0], Integer.parseInt(each.split(":")[1])));
        ByteBuffer data = null;
        if (assignor.equals("sticky")) {
            StickyAssignor before = new StickyAssignor();
            if (generation >= 0)
                before.onAssignment(new Assignment(owned), new ConsumerGroupMetadata("g", generation, member[0], Optional.empty()));
            data = before.subscriptionUserData(new HashSet<>(topics));
        }
        Subscription made = new Subscription(topics, data, owned, generation, Optional.empty());
        if (!member[1].isEmpty()) made.setGroupInstanceId(Optional.of(member[1]));
        return made;
    }
}
